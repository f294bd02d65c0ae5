package redisnode

import (
	"context"
	"slices"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// Do implements node.Backend. rueidis retries nothing: every command is a write.
func (s *Redis) Do(ctx context.Context, batch []node.Command) error {
	client, err := s.connected()
	if err != nil {
		err = node.NotConnected(err)
		for i := range batch {
			batch[i].Err = err
		}
		return err
	}
	able := s.ability(batch[0].Claim.Keys)
	seen := able.now()
	var results []rueidis.RedisResult
	if len(batch) == 1 { // spares the results' slice
		result := client.Do(ctx, s.command(client, &batch[0], seen, false))
		err = s.read(&batch[0], able, seen, result)
		if !s.isToRepeat(&batch[0], result) && !isToSplit(&batch[0], result) {
			return s.finish(ctx, client, batch, able, seen, err)
		}
		results = []rueidis.RedisResult{result}
	} else {
		commands := make([]rueidis.Completed, len(batch))
		for i := range batch {
			commands[i] = s.command(client, &batch[i], seen, false)
		}
		results = client.DoMulti(ctx, commands...)
		for i := range batch {
			err = s.read(&batch[i], able, seen, results[i])
		}
	}
	for range 2 { // a Ping may turn out to be for an older server
		var unknown []int
		var again []rueidis.Completed
		for i, result := range results {
			if s.isToRepeat(&batch[i], result) {
				unknown = append(unknown, i)
				again = append(again, s.command(client, &batch[i], seen, true))
			}
		}
		if len(again) == 0 {
			break
		}
		for j, result := range client.DoMulti(ctx, again...) {
			results[unknown[j]] = result
			err = s.read(&batch[unknown[j]], able, seen, result)
		}
	}
	err = s.splitAll(ctx, client, batch, results, able, seen, err)
	return s.finish(ctx, client, batch, able, seen, err)
}

// finish applies what the answers to a batch, which was built at seen, show of the server. It
// returns err, the error that the last command got from the connection.
func (s *Redis) finish(ctx context.Context, client rueidis.Client, batch []node.Command, able *ability, seen shown, err error) error {
	if s.topology != nil {
		s.topology.refresh(client, err != nil)
	}
	if s.demoted.Load() {
		s.redial(ctx, client)
	}
	if seen.proof() == tells && able.now() == seen { // as it is nearly always
		return err
	}
	if !able.isCounted() {
		if err != nil { // the next command may be the first on a new connection
			able.reset()
		} else if seen.proof() == unproven && slices.ContainsFunc(batch, func(c node.Command) bool { return c.Outcome != node.Unknown && formOf(&c, seen) == asScript }) {
			able.note(seen, mute)
		}
		return err
	}
	var granted []*node.Command
	for i := range batch {
		if c := &batch[i]; c.IsPlain() && c.Outcome == node.Done {
			granted = append(granted, c)
		}
	}
	switch p := seen.proof(); {
	case len(granted) == 0:
	case p == unproven:
		if s.verify(ctx, client, granted[:1])[0] {
			able.note(seen, echoes)
		} else {
			able.note(seen, mute)
		}
	case p != mute && !able.votes(seen): // the answers were nil
		ours := s.verify(ctx, client, granted)
		for i, c := range granted {
			if !ours[i] {
				c.Outcome, c.Err = node.Unknown, errNotProven
			}
		}
		if ours[0] {
			able.note(seen, tells)
		} else {
			able.note(seen, mute)
		}
	}
	return err
}

// verify asks again, with GET, for the keys of commands that have acquired them, or may
// have. For each command it reports whether the answer was the value of the key, and that
// value is the command's token.
//
// If the key is missing by now, verify sets it again, for 1 ms. So the key does not stay
// behind, even if a release of the claim has run since and will not be repeated. If the
// key exists, the server changes nothing.
func (s *Redis) verify(ctx context.Context, client rueidis.Client, granted []*node.Command) []bool {
	commands := make([]rueidis.Completed, len(granted))
	for i, c := range granted {
		commands[i] = client.B().Arbitrary("SET").Keys(c.Claim.Keys[0]).Args(c.Claim.Token, "NX", "PX", "1", "GET").Build()
	}
	ours := make([]bool, len(granted))
	for i, result := range client.DoMulti(ctx, commands...) {
		value, err := result.ToString()
		ours[i] = err == nil && value == granted[i].Claim.Token
	}
	return ours
}
