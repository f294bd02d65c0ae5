package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v3"
)

// root is the tool: its commands, and the help that all of them share.
func root() *cli.Command {
	return &cli.Command{
		Name:        "redlock",
		Usage:       "run commands under a lock that a quorum of Redis or Valkey servers keeps",
		Description: exitHelp,
		Commands:    []*cli.Command{runCommand(), statusCommand(), doctorCommand()},
		// main reports errors and chooses the code to exit with.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		OnUsageError:   onUsageError,
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return usagef("no command is called %q: see redlock -help", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		},
	}
}

// leaf completes a command that has no commands of its own.
func leaf(c *cli.Command) *cli.Command {
	// "help" may be a key.
	c.HideHelpCommand = true
	c.OnUsageError = onUsageError
	c.Flags = slices.Concat([]cli.Flag{nodesFlag()}, tlsFlags(), c.Flags, guardFlags())
	return c
}

func onUsageError(_ context.Context, c *cli.Command, err error, _ bool) error {
	return usageError{fmt.Errorf("%w: see %s -help", err, c.FullName())}
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func isUsage(err error) bool {
	return errors.As(err, new(usageError))
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON instead of a table"}
}
