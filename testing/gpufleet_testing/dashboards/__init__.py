"""The Grafana dashboards of the chart, as code: `make docs` writes them to charts/gpufleet/files/dashboards."""
