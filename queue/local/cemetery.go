package local

import (
	"context"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/mayfly/mayfly/queue"
)

// Dead implements queue.Cemetery.
func (q *Queue) Dead(ctx context.Context, limit int) (list []queue.DeadLetter, err error) {
	err = q.db.View(func(tx *bolt.Tx) error {
		seen, err := deadIDs(tx)
		if err != nil {
			return err
		}
		size := 0
		c := tx.Bucket(deadBucket).Cursor()
		for k, v := c.First(); k != nil && len(list) < limit; k, v = c.Next() {
			if err := ctx.Err(); err != nil {
				return err
			}
			e, _, err := split(v)
			if err != nil {
				return err
			}
			d := e.letter(deadKey(e.Dead.TaskID, parse(k), seen))
			if size += d.Size(); size > queue.DeadListMost && len(list) > 0 {
				return nil
			}
			list = append(list, d)
		}
		return nil
	})
	return list, err
}

// DeadLetter implements queue.Cemetery.
func (q *Queue) DeadLetter(_ context.Context, key string) (d queue.DeadLetter, err error) {
	err = q.db.View(func(tx *bolt.Tx) error {
		_, v, name, err := dig(tx, key)
		if err != nil {
			return err
		}
		e, body, err := split(v)
		if err != nil {
			return err
		}
		d = e.letter(name)
		d.Body = append([]byte{}, body...)
		return nil
	})
	return d, err
}

// letter is what the envelope of a dead letter says.
func (e *envelope) letter(key string) queue.DeadLetter {
	end := e.Dead
	return queue.DeadLetter{Key: key, TaskID: end.TaskID, Pool: e.Pool, Band: e.Band, Host: end.Host, Cause: end.Cause, Reason: end.Reason, BuriedAt: end.BuriedAt,
		Attempts: e.History}
}

// deadIDs counts the dead letters of each task.
func deadIDs(tx *bolt.Tx) (map[string]int, error) {
	seen := map[string]int{}
	err := tx.Bucket(deadBucket).ForEach(func(_, v []byte) error {
		e, _, err := split(v)
		if err == nil {
			seen[e.Dead.TaskID]++
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

// dig finds the dead letter of a key: its number, its envelope, which belongs to the database, and the key that it is listed by.
func dig(tx *bolt.Tx, key string) (number, sealed []byte, name string, err error) {
	seen, err := deadIDs(tx)
	if err != nil {
		return nil, nil, "", err
	}
	var keys []string
	c := tx.Bucket(deadBucket).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		e, _, err := split(v)
		if err != nil {
			return nil, nil, "", err
		}
		id := e.Dead.TaskID
		name := deadKey(id, parse(k), seen)
		if id == key {
			keys = append(keys, name)
		}
		if name == key || fmt.Sprintf("%s/%d", id, parse(k)) == key {
			return append([]byte{}, k...), v, name, nil
		}
	}
	if len(keys) > 1 {
		return nil, nil, "", &queue.AmbiguousError{TaskID: key, Keys: keys}
	}
	return nil, nil, "", queue.ErrNoDeadLetter
}

// Requeue implements queue.Cemetery.
func (q *Queue) Requeue(_ context.Context, key string) error {
	lane := ""
	err := q.commits.Update(func(tx *bolt.Tx) error {
		k, v, _, err := dig(tx, key)
		if err != nil {
			return err
		}
		m, _, err := unseal(v)
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
		k, _, _, err := dig(tx, key)
		if err != nil {
			return err
		}
		return tx.Bucket(deadBucket).Delete(k)
	})
}
