"""The images of the test bed, built without Docker."""
