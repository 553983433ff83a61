package rabbit

import (
	"math"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/mayfly/mayfly/queue"
)

// TestTurns numbers deliveries by what the broker has counted and the headers of copies say, which anybody may have made up.
func TestTurns(t *testing.T) {
	before := make([]any, turnsMax)
	for i := range before {
		before[i] = int64(i)
	}
	for name, c := range map[string]struct {
		headers amqp.Table
		want    []int
	}{
		"new":              {nil, []int{0}},
		"again":            {amqp.Table{deliveryCount: int64(2)}, []int{0, 1, 2}},
		"given back, too":  {amqp.Table{deliveryCount: int64(1), acquiredCount: int64(2)}, []int{0, 1, 2}},
		"a copy":           {amqp.Table{headerTurn: int64(700), deliveryCount: int64(1)}, []int{700, 701}},
		"a fresh copy":     {amqp.Table{headerTurn: int64(700), headerTurns: []any{int64(0), int64(1)}, deliveryCount: int64(1)}, []int{0, 1, 700, 701}},
		"too often":        {amqp.Table{deliveryCount: int64(turnsMax + 1)}, nil},
		"too many before":  {amqp.Table{headerTurns: before, deliveryCount: int64(1)}, nil},
		"no such count":    {amqp.Table{acquiredCount: int64(math.MaxInt64 - 1), headerTurns: []any{int64(0), int64(0)}}, nil},
		"count below zero": {amqp.Table{deliveryCount: int64(-1), acquiredCount: int64(-1)}, nil},
		"below zero":       {amqp.Table{headerTurn: int64(-1)}, nil},
		"too large":        {amqp.Table{headerTurn: int64(1)<<turnBits + 1}, nil},
		"before too large": {amqp.Table{headerTurns: []any{int64(1) << 62}}, nil},
		"no numbers":       {amqp.Table{headerTurns: []any{"1"}}, nil},
	} {
		if got := turns(c.headers); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestTurnsOfTheNameless has messages come again: only of those that have an id are their own deliveries known.
func TestTurnsOfTheNameless(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d     amqp.Delivery
		known bool
	}{
		"id in the body": {amqp.Delivery{Redelivered: true, Body: []byte(`{"id": "a"}`)}, true},
		"message id":     {amqp.Delivery{Redelivered: true, MessageId: "a", Body: []byte(`{}`)}, true},
		"none":           {amqp.Delivery{Redelivered: true, Body: []byte(`{"shell": "true"}`)}, false},
		"of a copy":      {amqp.Delivery{Redelivered: true, Body: []byte(`{}`), Headers: amqp.Table{headerTurn: int64(7)}}, true},
		"the first time": {amqp.Delivery{Body: []byte(`{}`)}, true},
	} {
		if m := decode(c.d, "p", queue.Normal, "me"); (m.Turns != nil) != c.known {
			t.Errorf("%s: %v", name, m.Turns)
		}
	}
}
