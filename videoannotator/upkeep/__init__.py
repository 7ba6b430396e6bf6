"""What happens to data around the work: copied aside and back, brought in from elsewhere, removed for good."""
