package main

import (
	"cmp"
	"reflect"
)

// variable is one variable of the environment.
type variable struct{ name, value, description, group string }

// variables lists the variables of the configuration from its tags.
func variables(c *config) []variable {
	t := reflect.TypeOf(*c)
	list := make([]variable, t.NumField())
	group := ""
	for i := range list {
		tag := t.Field(i).Tag
		group = cmp.Or(tag.Get("group"), group)
		list[i] = variable{name: tag.Get("envconfig"), value: tag.Get("default"), description: tag.Get("desc"), group: group}
	}
	return list
}
