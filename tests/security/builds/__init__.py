"""What an owner's source, wheels and setup.py try in a build."""
