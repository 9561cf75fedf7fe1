package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the migrations that the database lacks, each in a transaction.
func (s *Store) migrate(ctx context.Context) error {
	provider, err := migrator(s.writing)
	if err != nil {
		return err
	}
	stored, known, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if stored > known {
		return &SchemaError{File: s.file, Schema: stored, Know: known}
	}
	_, err = provider.Up(ctx)
	return err
}

func migrator(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true),
		goose.WithGoMigrations(goose.NewGoMigration(3, &goose.GoFunc{RunTx: foldNames}, nil)))
}

// foldNames fills keys.folded_name where SQL's lower, which knows ASCII only,
// does not do. It reads the index of names rather than all keys.
func foldNames(ctx context.Context, tx *sql.Tx) error {
	names, err := column[string](ctx, tx, `SELECT DISTINCT name FROM keys WHERE name GLOB '*[^'||char(1)||'-'||char(127)||']*'`)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := tx.ExecContext(ctx, `UPDATE keys SET folded_name=? WHERE name=?`, folded(name), name); err != nil {
			return err
		}
	}
	return nil
}

// column reads a query's only column.
func column[T any](ctx context.Context, tx *sql.Tx, query string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var values []T
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}
