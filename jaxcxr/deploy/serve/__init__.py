"""A bundle behind a small local web page and a JSON API.

Of radiographs: `POST /api/findings` (probabilities, thresholds, what is flagged as no frontal chest
radiograph) and `POST /api/heatmap?finding=NAME` (PNG), the body being a PNG, JPEG or DICOM file. Of
poses: `POST /api/poses?fps=30` and `POST /api/player?fps=30`, the body being JSON of 2D keypoints.
`GET /openapi.json` describes them, `GET /api/model` the model, `GET /` is the page.

Nothing is stored or logged of what is sent, the page loads nothing from elsewhere, and only this
machine is answered unless `--host` says otherwise. There is no login and no encryption: for more
than one machine, put a server that has both before it. Files are decoded in processes of their own
(`decoding_process`); size, declared dimensions, time and number of requests are bounded. SIGTERM
lets what is being worked on end.
"""
