"""``sdk apikey``: make an API key."""

from __future__ import annotations

import click


@click.command("apikey", short_help="Make an API key for clients of the ingress.")
@click.argument("name")
def apikey(name: str) -> None:
    """Make an API key with this NAME, for the file of the option `api_keys`.

    The key goes to stdout, for the client, which sends it as `x-api-key` metadata; it is stored nowhere. The line for
    the file goes to stderr. It has a digest of the key, from which nobody can compute the key.

    Exit codes: 0 made; 2 the name is invalid.
    """
    import hashlib
    import secrets

    from sdk.access import API_KEY_NAME

    if not API_KEY_NAME.match(name):
        raise click.BadParameter("use letters, digits, '.', '_', '-' and '@', at most 128.", param_hint="NAME")
    key = f"sdk_{secrets.token_urlsafe(32)}"
    click.echo("Append this line to the file of the option api_keys, and make the file 0600:", err=True)
    click.echo(f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}", err=True)
    click.echo(key)
