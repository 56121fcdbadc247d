"""A Django site with default settings. `/write` reads a counter and writes it back in a transaction; `/read` only reads, in a
transaction, as a view does with ATOMIC_REQUESTS. BOARD is its database. With IMMEDIATE it begins transactions with BEGIN IMMEDIATE."""

import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.http import HttpResponse
from django.urls import path

database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BOARD"]}
if os.environ.get("IMMEDIATE"):
    database["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
settings.configure(DATABASES={"default": database}, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
django.setup()


class Counter(models.Model):
    n = models.IntegerField()

    class Meta:
        app_label = "board"
        db_table = "counter"


def write(request):
    with transaction.atomic():
        counter = Counter.objects.get(pk=1)
        counter.n += 1
        counter.save()
    return HttpResponse(str(counter.n))


def read(request):
    with transaction.atomic():
        return HttpResponse(str(Counter.objects.filter(n__gte=0).count()))


urlpatterns = [path("write", write), path("read", read)]
connection.close()
application = get_wsgi_application()
