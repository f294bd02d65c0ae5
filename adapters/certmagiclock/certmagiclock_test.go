package certmagiclock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/adapters/certmagiclock"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/lockertest"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

const ms = time.Millisecond

// nodes are the servers that hold the locks, and a storage without locks.
type nodes struct {
	servers []*redistest.Server
	storage certmagic.Storage
}

func start(t *testing.T) *nodes {
	return &nodes{redistest.StartN(t, 3), unlocked{&certmagic.FileStorage{Path: t.TempDir()}, t}}
}

// unlocked is a storage whose own locks must not be used.
type unlocked struct {
	certmagic.Storage
	t *testing.T
}

func (s unlocked) Lock(context.Context, string) error {
	s.t.Error("the storage's own lock")
	return nil
}
func (s unlocked) Unlock(context.Context, string) error {
	s.t.Error("the storage's own lock")
	return nil
}

// instance returns the Storage of another process.
func (ns *nodes) instance(t *testing.T, ttl time.Duration) *certmagiclock.Storage {
	t.Helper()
	return certmagiclock.New(ns.storage, lockertest.Open(t, redistest.URLs(ns.servers)), ttl)
}

// authority issues certificates, and counts them: the first once so many instances have
// asked for the lock that one must wait for the others.
type authority struct {
	key       *ecdsa.PrivateKey
	issued    atomic.Int64
	missing   atomic.Int64  // instances that have not asked for the lock yet
	contended chan struct{} // closed when all have asked
}

// asking is a Storage that tells the authority when it is asked for a lock.
type asking struct {
	*certmagiclock.Storage
	authority *authority
}

func (s asking) Lock(ctx context.Context, name string) error {
	if s.authority.missing.Add(-1) == 0 {
		close(s.authority.contended)
	}
	return s.Storage.Lock(ctx, name)
}

func (a *authority) IssuerKey() string { return "authority" }

func (a *authority) Issue(_ context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.issued.Add(1)),
		DNSNames:     request.DNSNames,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(90 * 24 * time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, request.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	<-a.contended
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})}, nil
}

func TestOneOfManyInstancesObtainsACertificate(t *testing.T) {
	ns := start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	const instances = 4
	a := &authority{key: key, contended: make(chan struct{})}
	a.missing.Store(instances)
	var all sync.WaitGroup
	for range instances {
		storage := asking{ns.instance(t, time.Minute), a}
		var config *certmagic.Config
		cache := certmagic.NewCache(certmagic.CacheOptions{
			GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
			Logger:           zap.NewNop(),
		})
		t.Cleanup(cache.Stop)
		config = certmagic.New(cache, certmagic.Config{Storage: storage, Issuers: []certmagic.Issuer{a}, Logger: zap.NewNop()})
		all.Go(func() {
			if err := config.ObtainCertSync(t.Context(), "example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, a.issued.Load())
}

func TestALockIsExtendedUntilItIsUnlocked(t *testing.T) {
	ns := start(t)
	const ttl = time.Second
	one, other := ns.instance(t, ttl), ns.instance(t, ttl)
	require.NoError(t, one.Lock(t.Context(), "name"))
	for began := time.Now(); time.Since(began) < 3*ttl; {
		locked, _ := other.TryLock(t.Context(), "name")
		require.False(t, locked)
	}
	require.NoError(t, one.RenewLockLease(t.Context(), "name", time.Hour))
	ctx, cancel := context.WithTimeout(t.Context(), 100*ms)
	defer cancel()
	require.ErrorIs(t, other.Lock(ctx, "name"), context.DeadlineExceeded)

	acquired := make(chan error)
	go func() { acquired <- other.Lock(t.Context(), "name") }()
	require.NoError(t, one.Unlock(t.Context(), "name"))
	require.NoError(t, <-acquired)
	require.ErrorContains(t, one.RenewLockLease(t.Context(), "name", time.Hour), `certmagiclock: renew "name": not locked here`)
	require.EqualError(t, one.Unlock(t.Context(), "name"), `certmagiclock: unlock "name": not locked here`)
	require.NoError(t, other.Unlock(t.Context(), "name"))
}

func TestTryLockTellsALockThatIsHeldFromNoQuorum(t *testing.T) {
	ns := start(t)
	one, other := ns.instance(t, time.Minute), ns.instance(t, time.Minute)
	locked, err := one.TryLock(t.Context(), "name")
	require.NoError(t, err)
	require.True(t, locked)
	locked, err = other.TryLock(t.Context(), "name")
	require.NoError(t, err)
	require.False(t, locked)
	require.NoError(t, one.Unlock(t.Context(), "name"))
	for _, s := range ns.servers[:2] {
		s.Kill()
	}
	locked, err = other.TryLock(t.Context(), "name")
	require.ErrorIs(t, err, redlock.ErrNoQuorum)
	require.False(t, locked)
}

// Unlock is called with only a name. A goroutine that has lost its lock must not release
// the lock of the goroutine that holds it now.
func TestALostLockDoesNotUnlockTheNext(t *testing.T) {
	ns := start(t)
	one, other := ns.instance(t, time.Second), ns.instance(t, time.Second)
	require.NoError(t, one.Lock(t.Context(), "name"))
	lost := func() bool { return one.RenewLockLease(t.Context(), "name", time.Hour) != nil }
	eventually.True(t, "the lock is lost", func() bool {
		for _, s := range ns.servers { // until the lock is found to be lost
			_, err := s.Do("FLUSHALL")
			require.NoError(t, err)
		}
		return lost()
	})
	require.ErrorIs(t, one.RenewLockLease(t.Context(), "name", time.Hour), redlock.ErrLost)

	require.NoError(t, one.Lock(t.Context(), "name"), "another goroutine")
	require.NoError(t, one.Unlock(t.Context(), "name"), "by the first: nothing of its lock is left")
	locked, err := other.TryLock(t.Context(), "name")
	require.NoError(t, err)
	require.False(t, locked)
	require.False(t, lost())
	require.NoError(t, one.Unlock(t.Context(), "name"), "by the second")
	require.NoError(t, other.Lock(t.Context(), "name"))
	require.NoError(t, other.Unlock(t.Context(), "name"))
}
