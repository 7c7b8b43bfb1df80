"""Keep an index in step with its folders: added folders, another model, changes as they happen."""
