"""How an index goes along with its folders: more of them, another model, changes as they happen."""
