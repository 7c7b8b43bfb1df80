"""What the project does under kills, full disks, several processes, bad files and hostile requests."""
