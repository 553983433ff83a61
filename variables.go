package main

import "reflect"

// variable is one variable of the environment.
type variable struct{ name, value, description string }

// variables lists the variables of the configuration from its tags.
func variables(c *config) []variable {
	t := reflect.TypeOf(*c)
	list := make([]variable, t.NumField())
	for i := range list {
		tag := t.Field(i).Tag
		list[i] = variable{name: tag.Get("envconfig"), value: tag.Get("default"), description: tag.Get("desc")}
	}
	return list
}
