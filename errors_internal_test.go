package redlock

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/clock"
	"github.com/redis-kit/redlock/internal/keeper"
	"github.com/redis-kit/redlock/internal/node"
)

func TestALossByAJumpOfTheClockSaysSo(t *testing.T) {
	at := time.Date(2026, 1, 2, 13, 0, 5, 0, time.UTC)
	refused := errors.New("refused")
	for _, c := range []struct {
		loss keeper.Loss
		want string
	}{
		{keeper.Loss{}, "not extended"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour + 1, At: at}}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at}, Capped: true}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at, Suspended: true}}, "the machine was suspended for 1h0m0s, until 13:00:05.000Z"},
		{keeper.Loss{Jump: &clock.Jump{By: time.Hour, At: at}, Err: refused}, "the wall clock jumped ahead by 1h0m0s at 13:00:05.000Z: not extended: refused"},
	} {
		c.loss.Claim, c.loss.Until = &node.Claim{Keys: []string{"k"}}, at
		err := (&Locker{}).lostError(c.loss)
		require.EqualError(t, err, `redlock: hold "k": lock lost: valid until 13:00:05.000Z: `+c.want)
		require.ErrorIs(t, err, ErrLost)
		require.Equal(t, c.loss.Err != nil, errors.Is(err, refused))
	}
}
