module github.com/sandwich-mesh/sandwich

go 1.26
