"""Starting runs as RecBole does: in this process, or in one process per rank."""
