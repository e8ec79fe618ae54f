"""Read the output of the model as server-sent events, as a page does, with nothing but Python's standard library.

``python language_model_events.py localhost:9000``
"""

import json
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any


def generate(connection: HTTPConnection, prompt: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the data of each event. Close the connection to cancel the call.

    Raises:
        RuntimeError: The call failed.
    """
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    connection.request("POST", "/language_model.LanguageModel/Generate", json.dumps(prompt), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    event = ""
    while line := response.readline().decode():
        name, _, value = line.rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "error":
            raise RuntimeError(value)
        elif name == "data" and event != "end":
            yield json.loads(value)


def main(target: str) -> None:
    """Print a text, then the error for a wrong prompt."""
    connection = HTTPConnection(target, timeout=30)
    for token in generate(connection, {"text": "The river", "seed": "1", "maxTokens": 8}):
        print(token.get("text") or f"[{token['finishReason']}]", end=" ", flush=True)
    print()
    try:
        list(generate(connection, {"maxTokens": -1}))
    except RuntimeError as error:
        print(error)
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "localhost:9000")
