package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/hotspare/hotspare/gen/hotspare/v1"
	"github.com/hotspare/hotspare/internal/cli/client"
	"github.com/hotspare/hotspare/internal/cli/input"
	"github.com/hotspare/hotspare/internal/cli/outcome"
	"github.com/hotspare/hotspare/internal/cli/render"
	"github.com/hotspare/hotspare/internal/manifest"
	"github.com/hotspare/hotspare/internal/model"
)

func (a *app) applyCommand() *cobra.Command {
	var paths []string
	var dryRun, unproven bool
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Declare what manifests say, all of them or none",
		Long: `Declare what manifests say. All documents of all files are checked, then sent in one call that
takes effect as a whole or not at all; it is refused when a plan would not fit any more.`,
		Example: "  hotspare apply -f plans/webshop.yaml\n  hotspare apply -f plans/ --dry-run\n  cat site.yaml | hotspare apply -f -",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			files, err := input.Manifests(a.In, paths)
			if err != nil {
				return err
			}
			return a.apply(c.Context(), files, dryRun, unproven)
		},
	}
	c.Flags().StringArrayVarP(&paths, "filename", "f", nil, "manifest file, directory of *.yaml and *.yml, or - for the standard input; may be repeated")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check everything on the coordinator and change nothing")
	c.Flags().BoolVar(&unproven, "accept-unproven", false, "set up a site that does not fit yet; it lends nothing until it does")
	return c
}

func (a *app) apply(ctx context.Context, files []manifest.File, dryRun, unproven bool) error {
	resources, err := manifest.Decode(files...)
	if err != nil {
		return err
	}
	if len(resources) == 0 {
		return outcome.Usagef("the manifests declare nothing")
	}
	api := a.resources()
	answer, err := api.Apply(ctx, &pb.ApplyRequest{RequestId: a.newRequestID(), Resources: resources, DryRun: dryRun, AcceptUnproven: unproven})
	if err != nil {
		return err
	}
	suffix := ""
	if dryRun {
		suffix = " (dry run, nothing was changed)"
	}
	var names []string
	var text strings.Builder
	for _, o := range answer.GetOutcomes() {
		names = append(names, o.GetKey())
		fmt.Fprintf(&text, "%s %s%s\n", o.GetKey(), o.GetAction(), suffix)
	}
	return a.show(view{message: answer, names: names, text: func(bool) string { return text.String() }})
}

func (a *app) getCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "get KIND [NAME]",
		Short:   "Show declared resources",
		Long:    "Show declared resources: plan, project, network, pool, image, fencetarget, trigger, host, rolebinding, scenario.",
		Example: "  hotspare get plans\n  hotspare get plan webshop -o yaml > webshop.yaml",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return exactly("KIND")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := input.Kind(args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				return a.getOne(c.Context(), kind, args[1], stale)
			}
			return a.getAll(c.Context(), kind, stale)
		},
		ValidArgsFunction: a.completeResource,
	}
	staleFlag(c, &stale)
	return c
}

// staleFlag adds the flag for reads that need no leader.
func staleFlag(c *cobra.Command, into *bool) {
	c.Flags().BoolVar(into, "stale", false, "accept what a coordinator without contact to a leader remembers")
}

func (a *app) getOne(ctx context.Context, kind model.ResourceKind, name string, stale bool) error {
	api := a.resources()
	answer, err := api.GetResource(ctx, &pb.GetResourceRequest{Kind: string(kind), Name: name, Stale: stale})
	if err != nil {
		return err
	}
	r := answer.GetResource()
	return a.show(view{
		message: r,
		names:   []string{model.ResourceKey(r)},
		yaml:    func() ([]byte, error) { return manifest.Encode(r) },
		text:    func(wide bool) string { return render.Resources(kind, []*pb.Resource{r}, a.width(wide), wide) },
	})
}

func (a *app) listResources(ctx context.Context, kind model.ResourceKind, stale bool) (*pb.ListResourcesResponse, error) {
	api := a.resources()
	all := &pb.ListResourcesResponse{}
	return all, client.EachPage(string(kind)+"s", func(token string) (string, error) {
		page, err := api.ListResources(ctx, &pb.ListResourcesRequest{Kind: string(kind), PageSize: client.PageSize, PageToken: token, Stale: stale})
		all.Resources = append(all.Resources, page.GetResources()...)
		return page.GetNextPageToken(), err
	})
}

func (a *app) getAll(ctx context.Context, kind model.ResourceKind, stale bool) error {
	all, err := a.listResources(ctx, kind, stale)
	if err != nil {
		return err
	}
	var names []string
	for _, r := range all.GetResources() {
		names = append(names, model.ResourceKey(r))
	}
	return a.show(view{
		message: all,
		names:   names,
		yaml:    func() ([]byte, error) { return encodeAll(all.GetResources()) },
		text:    func(wide bool) string { return render.Resources(kind, all.GetResources(), a.width(wide), wide) },
	})
}

func encodeAll(rs []*pb.Resource) ([]byte, error) {
	var parts [][]byte
	for _, r := range rs {
		text, err := manifest.Encode(r)
		if err != nil {
			return nil, err
		}
		parts = append(parts, text)
	}
	return bytes.Join(parts, []byte("---\n")), nil
}

func (a *app) describeCommand() *cobra.Command {
	var stale bool
	c := &cobra.Command{
		Use:     "describe KIND NAME",
		Short:   "Show one declared resource and, for a plan, whether it could be run now",
		Example: "  hotspare describe plan webshop",
		Args:    exactly("KIND", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := input.Kind(args[0])
			if err != nil {
				return err
			}
			api := a.resources()
			answer, err := api.GetResource(c.Context(), &pb.GetResourceRequest{Kind: string(kind), Name: args[1], Stale: stale})
			if err != nil {
				return err
			}
			return a.showDescription(answer)
		},
		ValidArgsFunction: a.completeResource,
	}
	staleFlag(c, &stale)
	return c
}

func (a *app) showDescription(answer *pb.GetResourceResponse) error {
	r := answer.GetResource()
	text, err := manifest.Encode(r)
	if err != nil {
		return err
	}
	return a.show(view{
		message: answer,
		names:   []string{model.ResourceKey(r)},
		text: func(bool) string {
			m := model.MetadataOf(r)
			out := fmt.Sprintf("%s, revision %d, changed at index %d\n", model.ResourceKey(r), m.GetRevision(), m.GetResourceVersion())
			if t := r.GetTrigger(); t != nil {
				out += render.Trigger(t)
			}
			return out + render.Readiness(answer.GetReadiness(), a.Now()) + "\n" + string(text)
		},
	})
}

func (a *app) deleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "delete KIND NAME",
		Short:   "Delete a declared resource that nothing refers to",
		Example: "  hotspare delete plan webshop",
		Args:    exactly("KIND", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := input.Kind(args[0])
			if err != nil {
				return err
			}
			api := a.resources()
			answer, err := api.DeleteResource(c.Context(), &pb.DeleteResourceRequest{RequestId: a.newRequestID(), Kind: string(kind), Name: args[1]})
			if err != nil {
				return err
			}
			key := string(kind) + "/" + args[1]
			return a.show(view{message: answer, names: []string{key}, text: func(bool) string { return key + " deleted\n" }})
		},
		ValidArgsFunction: a.completeResource,
	}
}
