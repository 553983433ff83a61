// Package manager admits, assigns, runs, judges, settles and drains: it is the host's one ledger.
package manager
