"""Whole visits in headless Chromium, over HTTP: gunicorn, the sandbox's pages, and its mail catcher."""
