package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/redis/rueidis"
	"github.com/urfave/cli/v3"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
)

const nodesVariable = "REDLOCK_NODES"

// nodesFlag sets no Sources: urfave/cli would show the variable's value in the help text,
// and it may contain passwords.
func nodesFlag() cli.Flag {
	return &cli.StringFlag{
		Name:        "nodes",
		Usage:       "the nodes, `host:port,...`, or redis:// and rediss:// URLs, with percent-encoded passwords",
		DefaultText: "$" + nodesVariable,
	}
}

// urls returns the URLs of the nodes, as redlock.Open takes them. Spaces and line breaks
// around a node mean nothing. An error quotes nothing of the list but the
// names of files.
func urls(c *cli.Command) ([]string, error) {
	list := c.String("nodes")
	if list == "" {
		list = os.Getenv(nodesVariable)
	}
	if strings.TrimSpace(list) == "" {
		return nil, usagef("no nodes: give -nodes host:port,host:port,host:port or set %s; to try it out, start a server with: redis-server --port 6379 --maxmemory-policy noeviction", nodesVariable)
	}
	files, err := readTLS(c)
	if err != nil {
		return nil, err
	}
	var urls []string
	for text := range strings.SplitSeq(list, ",") {
		url, reason := strings.TrimSpace(text), ""
		if !strings.Contains(url, "://") {
			if url, reason = redisnode.ParseAddress(url); files.source != "" {
				url = strings.Replace(url, "redis://", "rediss://", 1)
			}
		}
		if reason == "" {
			url, reason = files.addTo(url)
		}
		if reason != "" {
			return nil, notANode(len(urls), reason)
		}
		urls = append(urls, url)
	}
	return urls, nil
}

func notANode(i int, reason string) error {
	return usagef("node %d of -nodes: %s", i+1, redisnode.WithForm(reason, "host:port or redis://[user:password@]host[:port][/db]"))
}

// deployment is one node that the tool asks directly.
type deployment struct {
	name   string
	option rueidis.ClientOption
}

// deployments reads the URLs. Its errors do not quote them.
func deployments(c *cli.Command) ([]deployment, error) {
	urls, err := urls(c)
	if err != nil {
		return nil, err
	}
	deployments := make([]deployment, len(urls))
	for i, url := range urls {
		option, reason := redisnode.ParseURL(url)
		if reason != "" {
			return nil, notANode(i, reason)
		}
		deployments[i] = deployment{redisnode.Name(option.InitAddress), redlock.Tune(option)}
	}
	return deployments, nil
}

// dial connects to the deployment.
func (d deployment) dial() (rueidis.Client, error) {
	client, err := redisnode.Connect(d.option)
	if err != nil {
		return nil, fmt.Errorf("not connected: %w", err)
	}
	return client, nil
}

// readSubject reads what doctor and status ask about: a key, the nodes, and the restart guard.
func readSubject(c *cli.Command) (key string, nodes []deployment, g restartGuard, err error) {
	if nodes, err = deployments(c); err != nil {
		return "", nil, g, err
	}
	if g, err = readRestartGuard(c, nodes); err != nil {
		return "", nil, g, err
	}
	key = c.Args().First()
	if err = node.Reserved(key); err != nil {
		return "", nil, g, usagef("%s %q: %w", c.Name, key, err)
	}
	return key, nodes, g, nil
}
