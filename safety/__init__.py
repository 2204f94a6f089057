"""The watch: supervisor and process life. Imports core."""
