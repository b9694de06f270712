"""Draws chest radiographs procedurally: patients, their findings, and the film.

`population` samples patients and visits, `anatomy` measures a chest, `tissues` draws it healthy,
`findings` adds disease, and `radiograph` exposes the film.
"""

from jaxcxr.xray.phantom.population import Visit, visit
from jaxcxr.xray.phantom.radiograph import render

__all__ = ["Visit", "render", "visit"]
