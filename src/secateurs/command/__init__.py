"""What the verbs of the command line do: settings, workspace, targets, comparison, catalogue."""
