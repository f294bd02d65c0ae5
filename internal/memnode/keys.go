package memnode

import "time"

// Set sets a key, even if another owner holds it.
func (b *Backend) Set(key, token string, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(key, token, ttl)
}

// Delete deletes a key, even if an owner holds it.
func (b *Backend) Delete(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.keys, key)
}

// Get returns the token that a key holds.
func (b *Backend) Get(key string) (token string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.get(key)
}

// Len returns the number of keys.
func (b *Backend) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for key := range b.keys {
		if _, ok := b.get(key); ok {
			n++
		}
	}
	return n
}

func (b *Backend) get(key string) (string, bool) {
	e, ok := b.keys[key]
	if !ok || !time.Now().Before(e.expires) {
		return "", false
	}
	return e.token, true
}

func (b *Backend) set(key, token string, ttl time.Duration) {
	if b.keys == nil {
		b.keys = make(map[string]entry)
	}
	b.keys[key] = entry{token, time.Now().Add(b.local(ttl))}
}

// local returns the exact duration of a ttl that this node's clock measures.
func (b *Backend) local(ttl time.Duration) time.Duration {
	if b.Rate == 0 {
		return ttl
	}
	return time.Duration(float64(ttl) / b.Rate)
}
