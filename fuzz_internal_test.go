package redlock

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Open's reading of URLs: no panic, no password in an error, and an address in
// whatever is accepted. The URL is put together so that the test knows which
// part of it is the password, however broken the rest is.
func FuzzURL(f *testing.F) {
	for _, c := range [][4]string{
		{"redis", "user", "hunter2", "host:6379/0"},
		{"rediss", "", "hunter2", "host"},
		{"valkey", "user", "hunter2", "[::1]:1"},
		{"unix", "", "hunter2", "/run/redis.sock?db=1"},
		{"uNiX", "", "hunter2", ""},
		{"http", "user", "hunter2", "host"},
		{"", "user", "hunter2", "host"},
		{"redis", "user", "hun/ter2", "host"},
		{"redis", "user", "1/hunter2", "host:6379/0"},
		{"redis", "user", "1?db=hunter2", "host"},
		{"redis", "user", "1#hunter2", "host"},
		{"redis", "user", "%zz", "host"},
		{"redis", "user", "hun@ter2", "host"},
		{"redis", "us/er", "hunter2", "host"},
		{"unix", "/user", "hunter2", "/run/redis.sock"},
		{"redis", "user", "hunter2", "host:port"},
		{"redis", "user", "hunter2", "host/a/b"},
		{"redis", "user", "hunter2", "host/x"},
		{"redis", "user", "hunter2", "host?db=x"},
		{"redis", "user", "hunter2", "host?dial_timeout=x&write_timeout=-1s"},
		{"redis", "user", "hunter2", "host?addr=a:1&addr=b"},
		{"redis", "user", "hunter2", "host?addr="},
		{"redis", "user", "hunter2", "host?master_set=m&addr=%20"},
		{"rediss", "user", "hunter2", "host?skip_verify=x"},
		{"redis", "", "", ":0"},
		{"redis", "\x00", "\xff", "\x7f"},
	} {
		f.Add(c[0], c[1], c[2], c[3])
	}
	f.Fuzz(func(t *testing.T, scheme, user, password, rest string) {
		url := scheme + "://" + user + ":" + password + "@" + rest
		for _, urls := range [][]string{{url}, {rest}, {url, url}, {rest, "redis://other", rest}} {
			options, err := parse(urls)
			if err != nil {
				require.Nil(t, options)
				require.True(t, strings.HasPrefix(err.Error(), "redlock: urls["), err.Error())
				if len(password) > 3 && !strings.Contains(scheme+user+rest, password) {
					require.NotContains(t, err.Error(), password)
				}
				continue
			}
			require.Len(t, options, len(urls))
			for _, o := range options {
				require.NotEmpty(t, o.InitAddress)
				require.NotContains(t, o.InitAddress, "")
				require.True(t, o.AlwaysPipelining && o.DisableCache && o.PipelineMultiplex == -1, "tuned")
			}
		}
	})
}
