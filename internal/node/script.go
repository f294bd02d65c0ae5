package node

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is a Lua script that is sent by its digest, and whole only where the
// server does not know it. rueidis.Lua does this for one call; for many it
// loads the script anew each time, which costs a round trip.
type script struct{ text, digest string }

// call is one run of a script.
type call struct{ keys, args []string }

func newScript(text string) script {
	sum := sha1.Sum([]byte(text))
	return script{text, hex.EncodeToString(sum[:])}
}

// run runs the script once per call, in one pipeline. The transport retries
// nothing. A server that answers NOSCRIPT has not run it, so sending it again
// is safe.
func (s script) run(ctx context.Context, client rueidis.Client, calls []call) []rueidis.RedisResult {
	results := send(ctx, client, calls, func(c call) rueidis.Completed {
		return client.B().Evalsha().Sha1(s.digest).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
	})
	var unknown []call
	var at []int
	for i, result := range results {
		if err, ok := rueidis.IsRedisErr(result.Error()); ok && err.IsNoScript() {
			unknown, at = append(unknown, calls[i]), append(at, i)
		}
	}
	if len(unknown) > 0 {
		again := send(ctx, client, unknown, func(c call) rueidis.Completed {
			return client.B().Eval().Script(s.text).Numkeys(int64(len(c.keys))).Key(c.keys...).Arg(c.args...).Build()
		})
		for j, result := range again {
			results[at[j]] = result
		}
	}
	return results
}

func send(ctx context.Context, client rueidis.Client, calls []call, build func(call) rueidis.Completed) []rueidis.RedisResult {
	if len(calls) == 1 {
		return []rueidis.RedisResult{client.Do(ctx, build(calls[0]))}
	}
	commands := make([]rueidis.Completed, len(calls))
	for i, c := range calls {
		commands[i] = build(c)
	}
	return client.DoMulti(ctx, commands...)
}
