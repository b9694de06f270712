"""Parts of every report: page frame, charts, tables, matplotlib figures."""
