package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/model"
)

// completeLimit bounds what a press of the tab key waits for.
const completeLimit = time.Second

// completion fetches names for the shell; no answer is no suggestion.
func (a *app) completion(c *cobra.Command, fetch func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completeLimit)
	defer cancel()
	names, err := fetch(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeResource(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		var words []string
		for _, k := range model.ResourceKinds() {
			words = append(words, string(k))
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	case 1:
		kind, ok := model.ParseResourceKind(args[0])
		if ok {
			return a.completion(c, func(ctx context.Context) ([]string, error) { return a.resourceNames(ctx, kind) })
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) resourceNames(ctx context.Context, kind model.ResourceKind) ([]string, error) {
	all, err := a.listResources(ctx, kind, true)
	var names []string
	for _, r := range all.GetResources() {
		names = append(names, model.MetadataOf(r).GetName())
	}
	return names, err
}

func (a *app) completePlan(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.completion(c, func(ctx context.Context) ([]string, error) { return a.resourceNames(ctx, model.ResourcePlan) })
}

func (a *app) completeTrigger(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.completion(c, func(ctx context.Context) ([]string, error) { return a.resourceNames(ctx, model.ResourceTrigger) })
}

func (a *app) completeLease(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.completion(c, func(ctx context.Context) ([]string, error) {
		all, err := a.listLeases(ctx, &pb.ListLeasesRequest{Stale: true, PageSize: client.PageSize})
		var names []string
		for _, l := range all.GetLeases() {
			names = append(names, l.GetName())
		}
		return names, err
	})
}

func (a *app) completeFailover(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.completion(c, func(ctx context.Context) ([]string, error) {
		all, err := a.listFailovers(ctx, true)
		var names []string
		for _, f := range all.GetFailovers() {
			names = append(names, f.GetName())
		}
		return names, err
	})
}

func (a *app) completeHost(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.completion(c, func(ctx context.Context) ([]string, error) {
		api := a.siteService()
		all, err := listHosts(ctx, api, true)
		var names []string
		for _, h := range all.GetHosts() {
			names = append(names, h.GetName())
		}
		return names, err
	})
}
