"""``medvl config``: a recipe's whole configuration as one file."""

from __future__ import annotations

from typing import Annotated

import typer

from medvl.cli.options import Settings, parse_settings, recipe_list


def config(
    recipe: Annotated[str, typer.Argument(help=f"The recipe ({recipe_list()}), or a YAML file of your own.")],
    settings: Settings = None,
) -> None:
    """Print the whole configuration of a recipe, to copy, edit and run.

    What several recipes share is merged in, and --set is applied. The comments of the settings are kept. The paths of the
    merged files go to standard error.

    Example:  medvl config convirt --set epochs=20 > my.yaml, then: medvl train my.yaml
    """
    from medvl.workflows import config_files, config_text

    files = "\n".join(f"  {path}" for path in config_files(recipe))
    typer.echo(f"Merged from the files\n{files}", err=True)
    typer.echo(config_text(recipe, parse_settings(settings or [])), nl=False)
