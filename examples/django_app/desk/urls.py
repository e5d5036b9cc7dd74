"""What the order desk answers."""

from django.urls import path
from orders import views

urlpatterns = [
    path("orders", views.orders),
    path("orders/<int:number>", views.order),
    path("orders/<int:number>/pay", views.pay),
    path("export", views.export),
    path("hold", views.hold),
    path("health", views.health),
    path("pool.json", views.pool),
]
