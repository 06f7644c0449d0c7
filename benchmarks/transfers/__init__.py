"""Measure transfers of images, from the request to `succeeded`, compared with tools that transfer the same bytes."""
