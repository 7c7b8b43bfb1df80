"""Behavior under kills, full disks, several processes, bad files and hostile requests."""
