module github.com/mayfly/mayfly

go 1.26
