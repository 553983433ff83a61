package local

import (
	"context"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// Dead implements queue.Cemetery.
func (q *Queue) Dead(ctx context.Context, visit func(queue.DeadLetter) bool) error {
	return q.db.View(func(tx *bolt.Tx) error {
		seen, err := deadIDs(tx)
		if err != nil {
			return err
		}
		c := tx.Bucket(deadBucket).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			m, end, err := unseal(v)
			if err != nil {
				return err
			}
			if !visit(queue.DeadLetter{Key: deadKey(end.TaskID, parse(k), seen), TaskID: end.TaskID, Pool: m.Pool, Band: m.Band, Host: end.Host,
				Cause: end.Cause, Reason: end.Reason, BuriedAt: end.BuriedAt, Attempts: m.History, Body: m.Body}) {
				return nil
			}
		}
		return nil
	})
}

// deadIDs counts the dead letters of each task.
func deadIDs(tx *bolt.Tx) (map[string]int, error) {
	seen := map[string]int{}
	err := tx.Bucket(deadBucket).ForEach(func(_, v []byte) error {
		_, end, err := unseal(v)
		if err == nil {
			seen[end.TaskID]++
		}
		return err
	})
	return seen, err
}

// deadKey names a dead letter: by its task's id where that is unique, else with its number as well.
func deadKey(taskID string, n uint64, seen map[string]int) string {
	if seen[taskID] == 1 {
		return taskID
	}
	return fmt.Sprintf("%s/%d", taskID, n)
}

// dig finds the dead letter of a key.
func dig(tx *bolt.Tx, key string) (number []byte, m queue.Message, err error) {
	seen, err := deadIDs(tx)
	if err != nil {
		return nil, m, err
	}
	var keys []string
	c := tx.Bucket(deadBucket).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		found, end, err := unseal(v)
		if err != nil {
			return nil, m, err
		}
		if end.TaskID == key {
			keys = append(keys, deadKey(key, parse(k), seen))
		}
		if deadKey(end.TaskID, parse(k), seen) == key || fmt.Sprintf("%s/%d", end.TaskID, parse(k)) == key {
			return append([]byte{}, k...), found, nil
		}
	}
	if len(keys) > 1 {
		return nil, m, &queue.AmbiguousError{TaskID: key, Keys: keys}
	}
	return nil, m, queue.ErrNoDeadLetter
}

// Requeue implements queue.Cemetery.
func (q *Queue) Requeue(_ context.Context, key string) error {
	lane := ""
	err := q.commits.Update(func(tx *bolt.Tx) error {
		k, m, err := dig(tx, key)
		if err != nil {
			return err
		}
		if err := tx.Bucket(deadBucket).Delete(k); err != nil {
			return err
		}
		m.QueuedAt = time.Now() // what is known of it, as how it ended, does not hold for this one
		m.History, lane = nil, laneName(m.Pool, m.Band)
		_, err = store(tx, m, time.Time{})
		return err
	})
	if err == nil {
		q.arrived(lane)
	}
	return err
}

// Drop implements queue.Cemetery.
func (q *Queue) Drop(_ context.Context, key string) error {
	return q.commits.Update(func(tx *bolt.Tx) error {
		k, _, err := dig(tx, key)
		if err != nil {
			return err
		}
		return tx.Bucket(deadBucket).Delete(k)
	})
}
