"""Renders the package's Jinja templates; every value is escaped, unknown names are refused."""

import base64
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def render(name: str, **values: Any) -> str:
    """Renders the template at a path in the package, such as "report/page.html"."""
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
    """Encodes a picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
