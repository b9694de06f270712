"""Serves a bundle as a local web page and a JSON API.

A model of radiographs answers `POST /api/findings` (probabilities, thresholds, flags) and
`POST /api/heatmap?finding=NAME` (PNG) for a PNG, JPEG or DICOM file as the body. A model of poses
answers `POST /api/poses?fps=30` and `POST /api/player?fps=30` for JSON of 2D keypoints.
`GET /openapi.json` describes the API, `GET /api/model` the model; `GET /` is the page.

Requests are neither stored nor logged, the page loads nothing from elsewhere, and the server
answers this machine only, unless `--host` says otherwise. It has no login and no encryption: to
serve other machines, put a proxy with both in front. Files are decoded in separate processes
(`decoding_process`); size, declared dimensions, time and number of requests are limited. SIGTERM
lets running requests finish.
"""
