"""SPEED as one function: the paper's Figure 2. Building it runs nothing; the ablations are its `if`s."""

from __future__ import annotations

from dataclasses import dataclass, replace

from speed.config import Config
from speed.core.content import ModelReference
from speed.core.errors import UserError
from speed.core.graph import Goal, goals
from speed.core.stage import Pool, Stage, Take
from speed.data.assignment import ROUNDS, Assignment, BrainstormPlan, Role
from speed.data.records import Example, Kind, Pair, Sample, Scores
from speed.data.topics.documents import test_size
from speed.ports import Weights
from speed.stages.dedup import Dedup
from speed.stages.embedder import Embedder
from speed.stages.evaluation import Evaluation
from speed.stages.field_pairs import FieldPairs
from speed.stages.filter import NegativeFilter
from speed.stages.given import (
    FirstOfCorpus,
    GivenCorpus,
    GivenModel,
    GivenSeed,
    MixedCorpus,
    count_mixed,
    count_seeds,
)
from speed.stages.graded import GradedDocuments
from speed.stages.held_out_pairs import HeldOutPairs
from speed.stages.instruct import InstructModel
from speed.stages.junior import Junior
from speed.stages.negatives import MinedNegatives
from speed.stages.own_domain import HeldOutQueries, OwnDomain
from speed.stages.preferences import Preferences
from speed.stages.relabelling import Relabelling
from speed.stages.retriever_pairs import RetrieverPairs
from speed.stages.revision_data import RevisionData
from speed.stages.revision_pass import RevisionPass
from speed.stages.revisor import Revisor
from speed.stages.root import RootData
from speed.stages.seed import SeedData
from speed.stages.senior import Senior
from speed.stages.synthesis import Synthesis
from speed.stages.tasks import Tasks
from speed.stages.topics import Topics
from speed.stages.verified_pairs import VerifiedPairs

WRAPPING = 16
"""Tokens around a revision: its key and braces."""


@dataclass(frozen=True)
class Pipeline:
    """The boxes that the reader of a report asks for by name."""

    corpus: Stage[Example]
    embedder: Embedder
    evaluation: Stage[Scores]
    own_domain: Stage[Scores] | None = None
    """The test on held-out documents, where topics are of the user's own (ours)."""
    held_out: HeldOutPairs | None = None
    """Contrastive entropy of pairs that the embedder has not seen (ours)."""

    def goals(self) -> list[Goal]:
        """Everything that the evaluation needs, upstream first."""
        beside = (self.held_out, self.own_domain)
        return goals([*(stage for stage in beside if stage is not None), self.evaluation])

    @property
    def key(self) -> str:
        """Identity of the whole experiment."""
        return self.evaluation.key


def pipeline(config: Config) -> Pipeline:
    """Wire the stages of one experiment (paper, section 3)."""
    seed, counts, diversity, limits = config.seed, config.counts, config.diversity, config.limits
    teacher, engine, prompts, guidelines = config.teacher, config.engine, config.prompts, config.guidelines

    # Topics become tasks (3.2.1). Each use of tasks draws its own.
    topics = Topics(config.topics, truncate=diversity.truncate)

    def tasks(role: Role) -> Tasks:
        return Tasks(
            plan=BrainstormPlan(role=role, seed=seed.data, mix=config.scale.mix),
            topics=topics,
            teacher=config.brainstormer,
            prompts=prompts.of("brainstorm"),
            request=diversity.tasks_requested,
            tasks_per_topic=1,  # the whole list is recorded too, so that all points of Table 3 share its calls
            temperature=config.sampling.teacher,
            max_tokens=limits.tasks,
        )

    def assignment(role: Role) -> Assignment:
        return Assignment(
            role=role,
            seed=seed.data,
            mix=config.scale.mix,
            tasks_per_topic=diversity.tasks_per_topic,
            samples_per_task=diversity.samples_per_task,
            prompts=prompts.of("synthesis"),
            grounded=None if config.topics.documents is None else prompts.of("grounded"),
        )

    def examples_by_teacher(attempts: int) -> SeedData:
        return SeedData(
            assignment=assignment("seed"),
            topics=topics,
            tasks=tasks("seed"),
            teacher=teacher,
            temperature=config.sampling.teacher,
            max_tokens=config.longest,
            attempts=attempts,
            guidelines=guidelines,
        )

    given = config.given

    def given_model(role: str, model: ModelReference) -> Stage[Weights]:
        return GivenModel(model, engine, role, given.prompt_format)

    # The teacher writes a little; the junior learns from it (3.2.2).
    wanted = round(counts.sft * counts.sft_factor)
    if given.seed:
        seeds_taken = GivenSeed(given.seed).take(min(wanted, count_seeds(given.seed)))
    else:
        seeds_taken = examples_by_teacher(counts.sft_attempts).take(wanted)
    sft = config.generator.sft.model_copy(update={"seed": seed.train})
    junior: Stage[Weights] = Junior(config.generator.base, sft, config.trainer, seeds_taken)
    if given.junior:
        junior = given_model("junior", given.junior)

    # The junior answers each prompt K times; the teacher (or rules) judges the lists for the senior (3.2.3).
    def lists(role: Role, junior: Stage[Weights]) -> RootData:
        return RootData(
            junior=junior,
            assignment=assignment(role),
            topics=topics,
            tasks=tasks(role),
            engine=engine,
            sampling=config.sampling.root,
            candidates=counts.candidates,
            max_tokens=config.longest,
            seed=seed.sample,
        )

    def judged(root: RootData) -> Pool[Pair]:
        match config.preference.pairs:
            case "judged":
                votes, probe = config.judge.by_votes, config.judge.retriever
                if probe is None:
                    asked = prompts.of("judge")
                    return Preferences(root, teacher, votes, asked, limits.judgement, seed.data, guidelines)
                return RetrieverPairs(root, probe.for_embedder(config.embedder), guidelines)
            case "verified":
                return VerifiedPairs(root)
            case "fields":
                return FieldPairs(
                    root=root,
                    junior=root.junior,
                    engine=engine,
                    sampling=config.sampling.root,
                    continuations=counts.candidates,
                    max_tokens=config.longest,
                    seed=seed.sample,
                )

    root, writer = lists("root", junior), junior
    if config.preference.enabled:
        assert config.preference.dpo is not None
        dpo = config.preference.dpo.model_copy(update={"seed": seed.train})
        # One round (the paper), or several that share the lists, in which each senior answers tasks of its own (ours).
        for role, count in zip(ROUNDS, config.lists_by_round, strict=False):
            answered = root if role == "root" else lists(role, writer)
            writer = Senior(dpo, config.trainer, writer, judged(answered).take(count))
    if given.senior:
        writer = given_model("senior", given.senior)

    # The writer synthesises at scale (3.3). For comparison (4.1) an instruct model writes as it came, or the teacher
    # writes it all: more rows of seed data (C.2).
    if config.scale.writer == "instruct":
        writer = InstructModel(config.generator.base, engine)
    samples: Pool[Sample] = Synthesis(
        writer=writer,
        assignment=assignment("synthesis"),
        topics=topics,
        tasks=tasks("synthesis"),
        engine=engine,
        sampling=config.sampling.synthesis,
        max_tokens=config.longest,
        seed=seed.sample,
        attempts=config.scale.attempts,
        guidelines=guidelines,
    )
    if config.scale.writer == "teacher":
        samples = examples_by_teacher(config.scale.attempts)

    # The teacher also repairs root answers; a revisor learns that from the base model (3.2.4) and repairs everything.
    if config.revisor.enabled:
        assert config.revisor.sft is not None
        revisions = RevisionData(
            root, teacher, prompts.of("revise"), config.revisor.temperature, limits.revision, seed.data, guidelines
        )
        revisor: Stage[Weights] = Revisor(
            base=config.generator.base,
            sft=config.revisor.sft.model_copy(update={"seed": seed.train}),
            trainer=config.revisor.trainer or config.trainer,
            data=revisions.take(round(counts.revisions * counts.revisions_factor)),
            target=config.revisor.target,
        )
        if given.revisor:
            revisor = given_model("revisor", given.revisor)
        reason = 2 if config.revisor.target == "reason+revision" else 1
        samples = RevisionPass(
            samples=samples,
            revisor=revisor,
            engine=engine,
            sampling=config.sampling.revision,
            prompts=prompts.of("revise"),
            max_tokens={kind: reason * longest + WRAPPING for kind, longest in config.longest.items()},
            on_failure=config.revisor.on_failure,
            seed=seed.sample,
            guidelines=guidelines,
        )

    # Repeats go (4.1, Appendix A), an embedder learns from the rest (3.3), and MTEB judges it (4.2).
    rows = round(config.scale.examples * config.scale.factor)
    kept = None if config.scale.keep is None else config.scale.mix.counts(config.scale.keep)
    corpus: Stage[Example] = Dedup(config.dedup.minhash, samples.take(rows), kept)
    if given.parts:
        mixed = FirstOfCorpus if given.corpus else MixedCorpus
        corpus, rows = mixed(given.parts, given.records), count_mixed(given.parts, given.records)
    if given.corpus and given.records is None:  # one whole file: the key that it had before there were several
        corpus = GivenCorpus(given.corpus)

    # Ours, after the paper's first limitation: hard negatives among the corpus' other positives, and without those that
    # may be answers; those that are, by the teacher's word, are positives.
    negatives, rules = config.negatives, config.filter.rules
    if negatives.source != "generated":
        assert negatives.miner is not None
        corpus = MinedNegatives(
            corpus=corpus,
            miner=negatives.miner.for_embedder(config.embedder),
            ranks=negatives.ranks,
            count=None if rules.any else negatives.count,  # a filter chooses from the whole window
            keep_generated=negatives.source == "both",
        )
    if rules.any:
        assert config.filter.judge is not None
        judge = config.filter.judge.for_embedder(config.embedder)
        corpus = NegativeFilter(corpus, judge, rules, negatives.count)
    if config.filter.relabel:
        corpus = Relabelling(
            corpus, teacher, prompts.of("relevance"), config.judge.temperature, limits.judgement, rows, negatives.count
        )
    if negatives.graded != 0:
        written = rows if given.parts else config.scale.mix.counts(rows)[Kind.RETRIEVAL]
        corpus = GradedDocuments(
            corpus=corpus,
            teacher=teacher,
            prompts=prompts.of("graded"),
            temperature=config.sampling.teacher,
            max_tokens=2 * config.longest[Kind.RETRIEVAL],  # four documents, where an example has two and its query
            longest=max(prompts.lengths.retrieval_words),
            queries=written if negatives.graded is None else min(negatives.graded, written),
        )
    embedder = Embedder(config.embedder, corpus, rows, seed.train)
    made = Pipeline(corpus, embedder, Evaluation(config.eval, embedder), _own_domain(config, topics, embedder))
    if config.held_out_pairs:
        made = replace(made, held_out=_held_out(config, seeds_taken, made))
    _refuse_unread(config, made)
    return made


def _own_domain(config: Config, topics: Topics, embedder: Embedder) -> OwnDomain | None:
    """The test on documents that nothing was generated from; None where topics are no documents (ours)."""
    documents = config.topics.documents
    if documents is None or config.topics.path is None:
        return None
    queries = HeldOutQueries(
        topics=topics,
        teacher=config.teacher,
        prompts=config.prompts.of("grounded"),
        documents=documents,
        temperature=config.sampling.teacher,
        max_tokens=config.longest[Kind.RETRIEVAL],
        guidelines=config.guidelines,
    )
    rows = test_size(config.topics.path.path, documents)
    return OwnDomain(config.eval, embedder, topics, queries.take(rows))


def _held_out(config: Config, seeds_taken: Take[Sample], made: Pipeline) -> HeldOutPairs:
    """Contrastive entropy of what the teacher wrote for the junior (ours).

    Raises:
        UserError: where the teacher's examples are the corpus, or would be paid for only for this.
    """
    if config.scale.writer == "teacher":
        raise UserError(
            f"held_out_pairs={config.held_out_pairs}: seed examples are the corpus where the teacher writes it\n"
            "  set held_out_pairs=0"
        )
    if not config.given.seed and seeds_taken.pool.key not in {goal.key for goal in made.goals()}:
        raise UserError(
            f"held_out_pairs={config.held_out_pairs}: this run has no seed examples, and none are bought only to "
            "measure\n  set held_out_pairs=0, or give some (given.seed=FILE)"
        )
    pairs = seeds_taken.pool.take(min(config.held_out_pairs, seeds_taken.rows))
    return HeldOutPairs(made.embedder, config.embedder, pairs, config.seed.data)


def _refuse_unread(config: Config, made: Pipeline) -> None:
    """Refuse what is given and that nothing reads.

    Raises:
        UserError: naming it.
    """
    read = {goal.label for goal in made.goals()} if config.given.named else set()
    unread = [name for name in config.given.named if f"given {name}" not in read]
    if unread:
        raise UserError(
            f"given.{unread[0]} has no effect: in this run nothing reads it\n  take it away, or what is given behind it"
        )
