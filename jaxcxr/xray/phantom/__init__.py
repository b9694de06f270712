"""Draws chest radiographs procedurally: patients, their findings, and the film.

`population` samples patients and visits, `anatomy`, `bones` and `vessels` draw the healthy chest
in millimetres, `findings` adds disease, `film` turns attenuation into grey values, and
`radiograph` combines them.
"""

from jaxcxr.xray.phantom.population import Visit, visit
from jaxcxr.xray.phantom.radiograph import render

__all__ = ["Visit", "render", "visit"]
