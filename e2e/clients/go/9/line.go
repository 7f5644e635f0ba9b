// What the lines of the client do not have in common: here the 9 line.
package main

import "github.com/elastic/go-elasticsearch/v9/typedapi/types"

// body of a search of several.
type body = types.SearchRequestBody

// about is the header of a search of several.
func about(collection, tenant string) types.MultisearchHeader {
	return types.MultisearchHeader{Index: []string{collection}, Routing: []string{tenant}}
}
