"""``sdk completion``: print the script that lets a shell complete ``sdk`` commands."""

from __future__ import annotations

import os
from typing import ClassVar

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

#: The environment variable by which a shell requests completions; click derives it from the program's name.
VARIABLE = "_SDK_COMPLETE"

_EXAMPLES = """\b
Examples:
  eval "$(sdk completion bash)"                             (in ~/.bashrc)
  eval "$(sdk completion zsh)"                              (in ~/.zshrc, after compinit)
  sdk completion fish > ~/.config/fish/completions/sdk.fish
"""


@add_completion_class
class LineBashComplete(BashComplete):
    """Completion for bash that receives the whole line.

    Bash also splits words at colons, so its words differ from our arguments HOST:PORT and MODULE:NAME.
    """

    source_template: ClassVar[str] = BashComplete.source_template.replace(
        'COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD', 'COMP_LINE="${COMP_LINE:0:$COMP_POINT}"'
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and the typed part of that one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words, incomplete

    def format_completion(self, item: click.shell_completion.CompletionItem) -> str:
        """Return a completion as bash expects it: for a word with a colon, only the text after the colon."""
        line = os.environ["COMP_LINE"]
        _, incomplete = self.get_completion_args()
        typed, colon, _ = incomplete.rpartition(":")
        if colon and line.endswith(incomplete) and str(item.value).startswith(f"{typed}:"):
            return f"{item.type},{str(item.value).removeprefix(f'{typed}:')}"
        return super().format_completion(item)


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, files, modules, and the METHOD of `sdk call`.

    The completions of METHOD come from the server's reflection, if it answers within one second.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "sdk", VARIABLE).source().rstrip("\n"))
