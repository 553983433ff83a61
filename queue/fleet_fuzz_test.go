package queue

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzFleet has others say anything to a host: what is taken is possible.
func FuzzFleet(f *testing.F) {
	f.Add(`{"id":"h1/abc","from":"h1","pool":"default","purpose":"run","task_id":"t","attempt_id":"t.1","rank":3,"fingerprint":"AAAAAAAAAAAAAAAAAAAAAA==","share":0.5,"open":30000000000}`)
	f.Add(`{"question":"h1/abc","host":"h2","room":1.5,"gave":[0,1],"says":"it runs here"}`)
	f.Add(`{"host":"h2","pools":["default","render"],"back":true,"life":"1ab"}`)
	f.Add(`{"id":"x","from":"h","pool":"p","rank":-1}`)
	f.Add(`{"id":"x","from":"h","pool":"p","rank":2000000}`)
	f.Add(`{"host":"h2","life":"\u001b[2J"}`)
	f.Add(`{"id":"x","from":"../../etc","pool":"a.b","share":1e308,"open":-1,"host":"\u001b[2J"}`)
	f.Add(`{"id":"x","from":"h","pool":"p","message":{"Body":"e30=","History":[{"attempt":-1}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var q Question
		if json.Unmarshal([]byte(text), &q) == nil && q.Check() == nil {
			if !ValidHost(q.From) || !ValidPool(q.Pool) || q.TaskID != "" && !ValidID(q.TaskID) || strings.Contains(q.AttemptID, "/") || q.Open < 0 || q.Rank < 0 || q.Rank > MaxRank {
				t.Errorf("taken: %+v", q)
			}
			if _, err := json.Marshal(q); err != nil {
				t.Error(err)
			}
		}
		var o Offer
		if json.Unmarshal([]byte(text), &o) == nil && o.Check() == nil && !ValidHost(o.Host) {
			t.Errorf("taken: %+v", o)
		}
		var h Hello
		if json.Unmarshal([]byte(text), &h) == nil && h.Check() == nil && (!ValidHost(h.Host) || !printable(h.Life)) {
			t.Errorf("taken: %+v", h)
		}
	})
}
