//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the driver
)

// ledger is what the lock protects: a table of accounts that several processes use. An
// account knows the highest fence that it has seen.
type ledger struct{ *sql.DB }

func openLedger(ctx context.Context, path string) (*ledger, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS account
		(name TEXT PRIMARY KEY, balance INTEGER NOT NULL, fence INTEGER NOT NULL DEFAULT 0)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &ledger{db}, nil
}

func (l *ledger) create(ctx context.Context, account string, balance int) error {
	_, err := l.ExecContext(ctx, `INSERT INTO account (name, balance) VALUES (?, ?)`, account, balance)
	return err
}

func (l *ledger) balance(ctx context.Context, account string) (balance int, err error) {
	err = l.QueryRowContext(ctx, `SELECT balance FROM account WHERE name = ?`, account).Scan(&balance)
	return balance, err
}

func (l *ledger) setBalance(ctx context.Context, account string, balance int) error {
	_, err := l.ExecContext(ctx, `UPDATE account SET balance = ? WHERE name = ?`, balance, account)
	return err
}

// staleError reports that the account has seen a higher fence.
type staleError struct{ fence int64 }

func (e *staleError) Error() string { return fmt.Sprintf("fence %d is stale", e.fence) }

// fencedBalance reads the balance, and shows the account the fence: from here on no write
// of an earlier holder can come between.
func (l *ledger) fencedBalance(ctx context.Context, account string, fence int64) (balance int, err error) {
	err = l.QueryRowContext(ctx, `UPDATE account SET fence = ?1 WHERE name = ?2 AND fence <= ?1 RETURNING balance`,
		fence, account).Scan(&balance)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, &staleError{fence}
	}
	return balance, err
}

func (l *ledger) setFencedBalance(ctx context.Context, account string, balance int, fence int64) error {
	result, err := l.ExecContext(ctx, `UPDATE account SET balance = ?1, fence = ?2 WHERE name = ?3 AND fence <= ?2`,
		balance, fence, account)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, &staleError{fence})
	}
	return nil
}
