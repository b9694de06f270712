"""The Jinja environment of all pages: it escapes every value and refuses unknown names."""

import base64
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def render(name: str, **values: Any) -> str:
    """Renders a template.

    Arguments:
      name: path in the package, such as "report/page.html"; templates lie beside their code.
      values: by name.
    """
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxcxr", ""), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters["png_url"] = _png_url
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _png_url(png: bytes) -> str:
    """An address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
