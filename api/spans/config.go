package spans

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Config says where spans go.
type Config struct {
	// URL takes them; empty where none are wanted. It may hold a password.
	URL     string
	Headers http.Header
	Service string
	Host    string
	Version string
}

// FromEnvironment reads the variables that OpenTelemetry's specification names.
func FromEnvironment(getenv func(string) string) (c Config, err error) {
	if getenv("OTEL_SDK_DISABLED") == "true" || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return c, nil
	}
	name := "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	c.URL = getenv(name)
	if c.URL == "" {
		name = "OTEL_EXPORTER_OTLP_ENDPOINT"
		if c.URL = getenv(name); c.URL == "" {
			return c, nil
		}
		c.URL = strings.TrimSuffix(c.URL, "/") + "/v1/traces"
	}
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return Config{}, fmt.Errorf("cannot use %s: it is a URL as http://collector:4318", name) // which may hold a password: it is not shown
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := getenv(name); p == "grpc" {
			return Config{}, fmt.Errorf("cannot use %s=grpc: spans are sent by HTTP with JSON (http/json), which collectors take on port 4318", name)
		}
	}
	c.Headers = http.Header{}
	for pair := range strings.SplitSeq(getenv("OTEL_EXPORTER_OTLP_HEADERS"), ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if pair != "" && (!ok || err != nil) {
			return Config{}, errors.New("cannot use OTEL_EXPORTER_OTLP_HEADERS: it is name=value,name=value, with values percent-encoded")
		}
		if pair != "" {
			c.Headers.Set(strings.TrimSpace(key), value)
		}
	}
	if c.Service = getenv("OTEL_SERVICE_NAME"); c.Service == "" {
		c.Service = "mayfly"
	}
	return c, nil
}
