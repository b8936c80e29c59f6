module github.com/hotspare/hotspare

go 1.26.0
