package node

// OwnReleases returns the number of keys that are being released in the background, and of the
// commands that wait for that.
func OwnReleases(n *Node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.ownReleases) + len(n.postponed)
}
