"""Whole visits in headless Chromium, over HTTP, against gunicorn, the sandbox's pages and its mail catcher."""
